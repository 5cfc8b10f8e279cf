"""Many nights of the emulated workflow, with new, late, corrected and broken rows and a fault a
night, on a clock of their own.
"""
