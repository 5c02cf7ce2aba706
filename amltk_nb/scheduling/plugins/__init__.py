"""What can be hung on a task: one interface (`base`) and its members."""
