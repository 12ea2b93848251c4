"""What every exchange of the drills left behind: the journal, compared with the database."""
