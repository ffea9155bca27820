"""Golden replays: what `poisonwatch replay` says of checked-in logs, byte for byte."""
