"""Starting a run on several processes and machines."""
