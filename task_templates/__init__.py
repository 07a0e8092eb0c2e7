"""SkyPilot task YAML, as package data."""
