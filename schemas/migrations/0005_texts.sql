-- user_agents, pages: the texts behind ua_hash and page_hash. Written outside the protocol: the same text twice is
-- the same row.
CREATE TABLE IF NOT EXISTS {database}.user_agents {on_cluster}
(
    ua_hash UInt64,
    text String CODEC(ZSTD(1))
)
ENGINE = {replacing_merge_tree}
ORDER BY ua_hash;

CREATE TABLE IF NOT EXISTS {database}.pages {on_cluster}
(
    page_hash UInt64,
    text String CODEC(ZSTD(1))
)
ENGINE = {replacing_merge_tree}
ORDER BY page_hash;

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.user_agents_all {on_cluster} AS {database}.user_agents
ENGINE = Distributed('{cluster}', '{database}', 'user_agents');

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.pages_all {on_cluster} AS {database}.pages
ENGINE = Distributed('{cluster}', '{database}', 'pages');
