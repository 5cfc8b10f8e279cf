"""What every part stands on: errors, logging, settings, files and names; imports none of them."""
