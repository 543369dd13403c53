"""What runs in templates and their children, and in no owner."""
