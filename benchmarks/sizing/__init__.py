"""What the agent takes, by what it watches."""
