"""The channel to a machine: SSH over its serial port, held by one warden process."""
