"""Pure words and decisions: known by every room, knowing none of them."""
