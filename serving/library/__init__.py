"""A folder of videos as one piece of work: plan, workers, records, joining."""
