"""The commands, one file a verb. Data goes to stdout, chatter to stderr."""
