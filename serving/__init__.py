"""More than one machine: a library of videos on a cluster, and a repository for a model server."""
