"""The commands, one file each: parse the arguments, call, print the result."""
