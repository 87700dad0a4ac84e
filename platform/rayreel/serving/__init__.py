"""The service: stages behind an HTTP API, with jobs that survive its parts."""
