"""What a price correction changes for usage that is booked, of any age; and the corrections of it."""
