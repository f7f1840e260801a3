"""Keys that stay on the host: who holds them, who asks the user, what is written down."""
