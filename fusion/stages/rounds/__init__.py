"""Rounds: the pivot writes, its sources read what it wrote, and it learns from that.

sequence  one round after the other
context  a round as a run of its own        prompts  which prompts are answered in it
texts    what the pivot wrote, checked      read     who reads it, and how exactly
learn    what the training knows of it      guard    how good the pivot is after it, and which round is kept
elsewhere  what another program writes      taken_out  what was said of the texts, for other programs
gap      what is left to gain in a domain      summary    how many texts are right, and what is learned from them
stop     ids with which the pivot ends
kept     the training that became the result          later_step  what rounds and preferences have in common
"""
