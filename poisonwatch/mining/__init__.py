"""Mining the trigger: which pattern goes to one class, against what the rest of the record says. Pure."""
