-- Views of a run's tables in DuckDB; the tables hold no stale rows.

-- One row per complex: its best sample by confidence_score, its pairs of chains, and its cost.
CREATE VIEW complex_summary AS
SELECT
    c.key, c.name, c.title, c.organism, c.outcome, c.reason, c.notes, c.num_chains, c.num_tokens,
    s.num_samples, c.sample AS best_sample, c.confidence_score, c.iptm, c.ptm, c.complex_plddt,
    p.num_pairs, p.num_pairs_in_contact, p.ipsae_max, a.gpu_hours, c.structure
FROM complexes AS c
LEFT JOIN (
    SELECT key, count(*) AS num_samples FROM complexes WHERE sample IS NOT NULL GROUP BY key
) AS s USING (key)
LEFT JOIN (
    SELECT
        key, count(*) AS num_pairs, max(ipsae_d0res_max) AS ipsae_max,
        count(*) FILTER (WHERE num_contacts_max > 0) AS num_pairs_in_contact
    FROM pairs GROUP BY key
) AS p USING (key)
LEFT JOIN (
    SELECT key, sum(seconds * group_size) / 3600 AS gpu_hours FROM attempts GROUP BY key
) AS a USING (key)
WHERE c."rank" = 0 OR c."rank" IS NULL
ORDER BY c.name, c.key;

-- Pairs of chains that touch in some sample, from the best to the worst.
CREATE VIEW best_interfaces AS
SELECT
    p.name, c.title, p.chain_a, p.chain_b, p.gene_a, p.gene_b, p.accession_a, p.accession_b,
    p.molecule_type_a, p.molecule_type_b, p.ipsae_strict, p.ipsae_d0res_mean, p.ipsae_d0res_max,
    p.iptm_max, p.pae_min_min, p.num_contacts_mean, p.num_samples, p.best_sample, c.organism,
    c.num_tokens, p.key
FROM pairs AS p
JOIN complex_summary AS c USING (key, name)
WHERE p.num_contacts_max > 0
ORDER BY p.ipsae_strict DESC NULLS LAST, p.iptm_max DESC NULLS LAST, p.name, p.key;

-- Pairs of proteins, and the complexes and publications of the database that have both.
CREATE VIEW known_pairs AS
SELECT
    q.accession_a, q.accession_b, any_value(q.gene_a) AS gene_a, any_value(q.gene_b) AS gene_b,
    count(DISTINCT c.name) AS num_complexes,
    list_sort(list(DISTINCT c.name)) AS complexes,
    list_sort(list_distinct(flatten(list(c.source_pubmed_ids)))) AS pubmed_ids,
    max(q.ipsae_d0res_max) AS ipsae_max
FROM (
    SELECT
        key, ipsae_d0res_max,
        least(accession_a, accession_b) AS accession_a,
        greatest(accession_a, accession_b) AS accession_b,
        CASE WHEN accession_a <= accession_b THEN gene_a ELSE gene_b END AS gene_a,
        CASE WHEN accession_a <= accession_b THEN gene_b ELSE gene_a END AS gene_b
    FROM pairs WHERE accession_a <> '' AND accession_b <> ''
) AS q
JOIN complexes AS c ON c.key = q.key AND c."rank" = 0
GROUP BY q.accession_a, q.accession_b
ORDER BY ipsae_max DESC NULLS LAST, q.accession_a, q.accession_b;
