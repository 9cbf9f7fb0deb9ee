"""What each platform says: adapters that observe endpoints and nothing else."""
