"""What every implementation of a port must do: run against the fakes and the real adapters."""
