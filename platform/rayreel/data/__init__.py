"""Run data on disk: prompt lists, run directories, the ledger of finished work."""
