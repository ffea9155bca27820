"""Real scenarios for every row of the cause table: real models on real data, replayed as a user would."""
