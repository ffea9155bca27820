"""What is shipped to deploy: rules, manifests, and what the programs that read them make of it."""
