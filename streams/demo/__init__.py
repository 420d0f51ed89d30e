"""The demonstration: a seeded month's worth of a platform's events in a minute, and a verdict on what came out."""
