"""Turns a checkpoint into deployable files; every to_<artefact>.py is one command and one artefact."""
