"""What installs, builds and measures."""
