"""The bug zoo: planted mistakes by protocol, never in the shipped cores. (Raft's: ../bugs.py.)"""
