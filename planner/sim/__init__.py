"""What would happen: a virtual-clock world around the same objects as the real one."""
