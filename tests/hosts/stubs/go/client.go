// A client of Hostler made of stubs of protos/ and public packages: no code of Hostler's.
//
// Arguments: address, name of the host, folder with ca.pem, user.pem and user.key, name of the
// namespace. Tells on standard output, a JSON line each, what it did; after each it waits for a line
// on standard input.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	common "stubs/gen/hostler/api/common/v1"
	netns "stubs/gen/hostler/api/netns/v1"
)

var lines = bufio.NewReader(os.Stdin)

type told map[string]any

func tell(did string, what told) {
	what["did"] = did
	text, err := json.Marshal(what)
	check(err)
	fmt.Println(string(text))
	_, err = lines.ReadString('\n')
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func requestID() string {
	b := make([]byte, 16)
	_, err := rand.Read(b)
	check(err)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func dial(address, host, pki string) *grpc.ClientConn {
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(pki, "ca.pem"))
	check(err)
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "user.pem"), filepath.Join(pki, "user.key"))
	check(err)
	secure := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: host}
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	check(err)
	return connection
}

// The rich details of an error: the reason, and which fields are wrong.
func decode(err error) told {
	what := told{"code": codeName(status.Code(err).String())}
	fields := []string{}
	for _, detail := range status.Convert(err).Details() {
		switch one := detail.(type) {
		case *errdetails.ErrorInfo:
			what["reason"], what["domain"] = one.Reason, one.Domain
		case *errdetails.BadRequest:
			for _, violation := range one.FieldViolations {
				fields = append(fields, violation.Field)
			}
		}
	}
	what["fields"] = fields
	return what
}

// As all other languages call it: INVALID_ARGUMENT for InvalidArgument.
func codeName(name string) string {
	var out []rune
	for at, letter := range name {
		if at > 0 && letter >= 'A' && letter <= 'Z' {
			out = append(out, '_')
		}
		if letter >= 'a' && letter <= 'z' {
			letter -= 'a' - 'A'
		}
		out = append(out, letter)
	}
	return string(out)
}

func main() {
	address, hostName, pki, name := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	connection := dial(address, hostName, pki)
	defer connection.Close()
	namespaces := netns.NewNamespaceServiceClient(connection)

	create := func(name string, options *common.ChangeOptions) (*common.Change, error) {
		options.RequestId = requestID()
		request := &netns.CreateNamespaceRequest{
			Namespace: &netns.Namespace{Name: name}, Change: options,
		}
		answer, err := namespaces.CreateNamespace(ctx, request)
		return answer.GetChange(), err
	}

	got, err := common.NewHostServiceClient(connection).GetHost(ctx, &common.GetHostRequest{})
	check(err)
	host := got.Host
	tell("host", told{"hostname": host.Hostname, "domain": host.Domain, "caller": host.Caller})

	planned, err := create(name, &common.ChangeOptions{ValidateOnly: true})
	check(err)
	steps := []string{}
	for _, step := range planned.Plan.Steps {
		steps = append(steps, step.Kind)
	}
	tell("plan", told{"outcome": planned.Outcome.String(), "steps": steps})
	done, err := create(name, &common.ChangeOptions{PlanHash: planned.Plan.Hash})
	check(err)
	tell("create", told{"outcome": done.Outcome.String(), "changed": done.Changed})

	listed, err := namespaces.ListNamespaces(ctx, &netns.ListNamespacesRequest{ManagedOnly: true})
	check(err)
	names := []string{}
	for _, one := range listed.Namespaces {
		names = append(names, one.Name)
	}
	tell("list", told{"names": names})

	watch, err := netns.NewCounterServiceClient(connection).WatchCounters(
		ctx, &netns.WatchCountersRequest{
			Namespace: name, Interval: durationpb.New(200 * time.Millisecond), Count: 2,
		})
	check(err)
	readings := []told{}
	for {
		reading, err := watch.Recv()
		if err == io.EOF {
			break
		}
		check(err)
		links := []string{}
		for _, link := range reading.Links {
			links = append(links, link.Counters.Ifname)
		}
		readings = append(readings, told{"seq": reading.Seq, "links": links})
	}
	tell("watch", told{"readings": readings})

	if _, err = create("not a name", &common.ChangeOptions{}); err != nil {
		tell("error", decode(err))
	}

	deleted, err := namespaces.DeleteNamespace(ctx, &netns.DeleteNamespaceRequest{Name: name})
	check(err)
	tell("delete", told{"changed": deleted.Change.Changed})
}
