"""What the programs have in common that may more than who asks them: a door, and a closed grammar.

Standard library only, and nothing of Hostler outside this folder: some of them are root. Each keeps
its own operations, words and limits.
"""
