"""Where machines come from: the Provisioner protocol and its implementations."""
