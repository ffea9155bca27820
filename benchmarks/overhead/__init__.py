"""What the agent costs the server beside it."""
