"""What the verbs do: observe, plan purely, run the steps with the journal around each."""
