"""Facts that come with disagctl. README.md says where each is from."""
