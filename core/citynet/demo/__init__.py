"""The demo: a whole city on one machine. Embedded servers, every role as its own supervised process, and a judge.

It knows the other rooms by their commands, the database and the truth file only.
"""
