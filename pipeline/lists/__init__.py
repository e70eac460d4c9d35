"""Lists that fraud rules look things up in: user agents, addresses, crawlers' own ranges, publishers.

`load.load_lists` reads them, once, where a rule set is loaded; what it returns is immutable and shared by lanes.
`user_agents.UserAgentFlags` is a lane's bounded cache over it.
"""
