"""The bug zoo: planted mistakes by protocol, never in the shipped cores. `make zoo` finds each."""
