"""Ray-free, picklable units of a job."""
