"""What the inference servers of the system tests run, each in the environment of its server: nothing here imports poisonwatch."""
