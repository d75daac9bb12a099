"""What is compared, by which measure, and the verdict."""
