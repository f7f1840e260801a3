"""What rests on the disk: paths, durable files, journal, locks, profile records."""
