"""What runs the calls: one interface (`base`) and its members, one optional library each."""
