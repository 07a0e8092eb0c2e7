"""What runs on GPU machines; it never imports disagctl or sky."""
