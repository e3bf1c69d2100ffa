\set VERBOSITY verbose
CREATE TABLE customers (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text NOT NULL,
    email   text UNIQUE,
    since   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer  bigint REFERENCES customers (id),
    total     numeric(12, 2) CHECK (total > 0),
    note      jsonb
);
INSERT INTO customers (name, email) VALUES
    ('Zażółć Gęślą', 'zazolc@shop.example'),
    ('李雷', 'lilei@shop.example'),
    ('O''Brien', 'obrien@shop.example'),
    ('مريم', 'maryam@shop.example'),
    ('🐢 Turtle', 'turtle@shop.example');
INSERT INTO customers (name, email)
SELECT 'customer ' || n, 'c' || n || '@shop.example' FROM generate_series(1, 2000) AS n;
INSERT INTO orders (customer, total, note)
SELECT 1 + n % 2005, 1 + n % 977 + 0.5, jsonb_build_object('n', n, 'größe', 'XL') FROM generate_series(1, 20000) AS n;
CREATE INDEX ON orders (customer);
ANALYZE;
-- errors of many kinds
SELECT * FROM missing_table;
SELECT nonexistent FROM customers;
SELEC 1;
INSERT INTO customers (name, email) VALUES ('twice', 'c7@shop.example');
INSERT INTO orders (customer, total) VALUES (999999, 5);
INSERT INTO orders (customer, total) VALUES (1, -5);
INSERT INTO customers (name) VALUES (NULL);
SELECT 1 / 0;
SELECT 'abc'::int;
SELECT '{"broken": '::jsonb;
SELECT to_date('2026-13-45', 'YYYY-MM-DD');
SELECT E'\xff'::text;
SELECT pg_sleep(0.05);
BEGIN;
UPDATE orders SET total = total * 2 WHERE id = 1;
SELECT 1 / 0;
SELECT 'ignored until the end of the block';
ROLLBACK;
DO $$
BEGIN
    RAISE NOTICE 'a notice with a tab:	and ünïcödé';
    RAISE WARNING USING MESSAGE = 'a warning', DETAIL = E'detail in\ntwo lines', HINT = 'and a hint';
    PERFORM 1 / 0;
EXCEPTION WHEN division_by_zero THEN
    RAISE LOG 'caught % at %', SQLERRM, now();
END
$$;
CREATE OR REPLACE FUNCTION total_of(who bigint) RETURNS numeric LANGUAGE plpgsql AS $body$
DECLARE
    answer numeric;
BEGIN
    SELECT sum(total) INTO STRICT answer FROM orders WHERE customer = who;
    IF answer IS NULL THEN
        RAISE EXCEPTION 'customer % has no orders', who USING ERRCODE = 'no_data_found', HINT = 'check the id';
    END IF;
    RETURN answer;
END
$body$;
SELECT total_of(3);
SELECT total_of(123456);
PREPARE by_mail (text) AS SELECT id, name FROM customers WHERE email = $1;
EXECUTE by_mail('lilei@shop.example');
EXECUTE by_mail('nobody@shop.example');
SET work_mem = '64kB';
SELECT customer, string_agg(note::text, ',' ORDER BY total DESC)
  FROM orders
 GROUP BY customer
 ORDER BY 2
 LIMIT 3;
WITH RECURSIVE t (n, path) AS (
    VALUES (1, ARRAY[1])
  UNION ALL
    SELECT n + 1, path || n FROM t WHERE n < 10
)
SELECT * FROM t;
SET statement_timeout = '100ms';
SELECT pg_sleep(2);
SET statement_timeout = 0;
COPY customers (name, email) FROM STDIN;
good	good@shop.example
bad line without a tab
\.
VACUUM (VERBOSE) orders;
CHECKPOINT;
DELETE FROM orders WHERE id % 3 = 0;
