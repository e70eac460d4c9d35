"""What real traffic is made of: browsers and consumer networks, with weights."""
