"""Other engines of the same network, measured beside foldcp where they are installed."""
