"""What mlxport does, a file for each verb: convert, inspect, restore, verify, export."""
