"""A customer's world for demonstrations and tests: mail server, correspondent, proofs."""
