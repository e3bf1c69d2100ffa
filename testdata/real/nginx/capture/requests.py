import json, random, urllib.parse
r = random.Random(20261121)
UA = ["", "curl/7.88.1", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
 "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
 "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
 "Googlebot/2.1 (+http://www.google.com/bot.html)", "zażółć/1.0 \"quoted\" \\ back", "Prometheus/2.53.0", "日本語エージェント/2"]
B = "http://127.0.0.1:8088"
out = []
def req(path, method="GET", data=None, hdr=(), extra=()):
    o = [f'url = "{B}{path}"', 'output = "/dev/null"', 'silent', 'path-as-is', f'request = "{method}"' if method != "HEAD" else "head"]
    ua = r.choice(UA)
    o.append('user-agent = "%s"' % ua.replace("\\", "\\\\").replace('"', '\\"'))
    if r.random() < .4: o.append(f'referer = "http://shop.example/{r.choice(["", "docs/", "search?q=kettle&page=2", "cart#lines"])}"')
    if data is not None: o.append('data-binary = "%s"' % data.replace("\\", "\\\\").replace('"', '\\"'))
    for h in hdr: o.append(f'header = "{h}"')
    o += extra
    out.append("\n".join(o))
items = ["kettle", "teapot", "żółw", "カップ", "spoon", "fork"]
names = ["Ada", "Zoë", "Łukasz", "Ngọc", "O'Brien", "李雷", "مريم", None]
def order():
    return json.dumps({"customer": r.choice(names), "lines": [dict(item=r.choices(items, [30,30,20,15,2,3])[0], count=r.choice([1,2,3,5,5,95,0]), **({"discount": True} if r.random()<.1 else {})) for _ in range(r.randint(1,3))]}, ensure_ascii=r.random()<.5)
q = urllib.parse.quote
for n in range(1500):
    k = r.random()
    if k < .30: req(f"/docs/page{r.randint(1,7)}.txt", r.choice(["GET","GET","GET","HEAD"]), extra=(['compressed'] if r.random()<.5 else []))
    elif k < .38: req("/" + r.choice(["", "index.html", "robots.txt", "favicon.ico", "docs/", "docs/" + q("żółw.txt"), "img/large.bin", "wp-login.php", ".env", "../../etc/passwd", "%2e%2e/x", "?a=1&b=%00&c=%F0%9F%90%A2", "docs/" + "x"*r.randint(30,300)]))
    elif k < .42: req("/img/large.bin", hdr=[f"Range: bytes={r.choice(['0-99','100-','999999-','-50','0-0,5-9'])}"])
    elif k < .45: req("/docs/page2.txt", hdr=["If-Modified-Since: Fri, 01 Jan 2038 00:00:00 GMT"])
    elif k < .62: req("/api/orders", "POST", order())
    elif k < .72: req("/api/orders")
    elif k < .82: req(f"/api/orders/{r.choice([1,2,3,10,50,r.randint(1,400),'abc',99999])}")
    elif k < .84: req("/api/report?by=" + r.choice(["customer", "total", "region", "1;drop"]))
    elif k < .855: req("/api/orders", "POST", order()[:r.randint(0,40)])
    elif k < .86: req("/api/slow")
    elif k < .90: req("/login", "POST", "user=alice")
    elif k < .92: req("/admin/" , extra=([f'user = "{r.choice(["alice","bob","root"])}:wrong"'] if r.random()<.7 else []))
    elif k < .93: req("/private/secret.txt")
    elif k < .945: req("/legacy/" + str(n))
    elif k < .955: req("/old")
    elif k < .965: req(r.choice(["/teapot", "/maintenance"]), r.choice(["GET", "PUT", "DELETE", "OPTIONS", "PATCH"]))
    elif k < .97: req("/api/orders", "POST", "x"*20000)
    elif k < .98: req("/docs/page1.txt", r.choice(["POST", "TRACE", "PROPFIND", "FOO"]))
    elif k < .985: req("/" + "y"*3000)
    elif k < .99: req("/api/slow", extra=['max-time = 0.3'])
    else: req("/docs/page1.txt", hdr=["Host: " + r.choice(["other.example", "bad host", "shop.example"])])
open("/srv/shop/requests.curl", "w").write("\nnext\n".join(out) + "\n")
