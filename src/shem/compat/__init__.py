"""Names that users of other Golem libraries know, on top of shem. No behaviour of its own belongs here."""
